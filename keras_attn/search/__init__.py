"""Search: pure functions of a decoding step that choose a target."""

from keras_attn.search.beam import Beam, Ranking
from keras_attn.search.loop import Choice, Rule, advance, begin, search
from keras_attn.search.rules import Forbidden, Members, NoRepeat, Occasional, Prefix
from keras_attn.search.sample import Draw, Sample, fold
from keras_attn.search.scores import Scores, of_log_p, of_logits
from keras_attn.search.settings import Settings, choice_of, clamped, plain, rules_of
from keras_attn.search.trie import NO_TRIE, Trie, depth_of, trie_of

__all__ = [
    "NO_TRIE",
    "Beam",
    "Choice",
    "Draw",
    "Forbidden",
    "Members",
    "NoRepeat",
    "Occasional",
    "Settings",
    "Prefix",
    "Ranking",
    "Rule",
    "Sample",
    "Scores",
    "Trie",
    "advance",
    "begin",
    "choice_of",
    "clamped",
    "depth_of",
    "fold",
    "of_log_p",
    "of_logits",
    "plain",
    "rules_of",
    "search",
    "trie_of",
]
