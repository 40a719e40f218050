"""Keras layers of the classic encoder-decoders, and the attention family."""

from keras_attn.layers.attention import Attention
from keras_attn.layers.bridges import (
    CopyBridge,
    DenseBridge,
    LinearBridge,
    SummaryBridge,
    ZeroBridge,
)
from keras_attn.layers.cells import ChoCell
from keras_attn.layers.contexts import AttentionContext, FixedContext, NoContext
from keras_attn.layers.convolution import ConvEncoder
from keras_attn.layers.copying import NoGate, PointerGate
from keras_attn.layers.decoder import Decoder
from keras_attn.layers.encoders import RNNEncoder
from keras_attn.layers.hard import Hard
from keras_attn.layers.heads import Heads
from keras_attn.layers.normalisers import Normaliser, Softmax, Sparsemax
from keras_attn.layers.orders import AttendUpdate, UpdateAttend
from keras_attn.layers.past_scorers import CoverageScorer, LocationSensitiveScorer
from keras_attn.layers.readouts import LinearReadout, MaxoutReadout, TanhReadout
from keras_attn.layers.recurrence import Recurrence
from keras_attn.layers.saliency import Gating, WinnerTakeAll
from keras_attn.layers.scorers import (
    AdditiveScorer,
    ConcatScorer,
    DotScorer,
    GeneralScorer,
    LocationScorer,
    LowRankScorer,
    ScaledDotScorer,
    Scorer,
)
from keras_attn.layers.self_attention import SelfAttentionEncoder
from keras_attn.layers.starts import SummaryStart, TokenStart, ZeroStart
from keras_attn.layers.summaries import (
    BackwardSummary,
    ConcatSummary,
    GatedSummary,
    LastSummary,
    MaxSummary,
    MeanSummary,
    ProjectedSummary,
)
from keras_attn.layers.windows import (
    GlobalWindow,
    LocalMonotonicWindow,
    LocalPredictedWindow,
    MonotonicWindow,
)

__all__ = [
    "AdditiveScorer",
    "AttendUpdate",
    "Attention",
    "AttentionContext",
    "BackwardSummary",
    "ChoCell",
    "ConcatScorer",
    "ConcatSummary",
    "ConvEncoder",
    "CopyBridge",
    "CoverageScorer",
    "Decoder",
    "DenseBridge",
    "DotScorer",
    "FixedContext",
    "GatedSummary",
    "Gating",
    "GeneralScorer",
    "GlobalWindow",
    "Hard",
    "Heads",
    "LastSummary",
    "LinearBridge",
    "LinearReadout",
    "LocalMonotonicWindow",
    "LocalPredictedWindow",
    "LocationScorer",
    "LocationSensitiveScorer",
    "LowRankScorer",
    "MaxSummary",
    "MaxoutReadout",
    "MeanSummary",
    "MonotonicWindow",
    "NoContext",
    "NoGate",
    "Normaliser",
    "PointerGate",
    "ProjectedSummary",
    "RNNEncoder",
    "Recurrence",
    "ScaledDotScorer",
    "Scorer",
    "SelfAttentionEncoder",
    "Softmax",
    "Sparsemax",
    "SummaryBridge",
    "SummaryStart",
    "TanhReadout",
    "TokenStart",
    "UpdateAttend",
    "WinnerTakeAll",
    "ZeroBridge",
    "ZeroStart",
]
