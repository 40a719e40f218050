"""Keras layers of the four classic encoder-decoder variants."""

from keras_attn.layers.attention import Attention
from keras_attn.layers.bridges import CopyBridge, DenseBridge, SummaryBridge, ZeroBridge
from keras_attn.layers.contexts import AttentionContext, FixedContext, NoContext
from keras_attn.layers.decoder import Decoder
from keras_attn.layers.encoders import RNNEncoder
from keras_attn.layers.normalisers import Softmax
from keras_attn.layers.orders import AttendUpdate, UpdateAttend
from keras_attn.layers.readouts import LinearReadout, MaxoutReadout, TanhReadout
from keras_attn.layers.recurrence import Recurrence
from keras_attn.layers.scorers import AdditiveScorer, DotScorer, GeneralScorer, ScaledDotScorer
from keras_attn.layers.starts import SummaryStart, TokenStart
from keras_attn.layers.summaries import (
    ConcatSummary,
    GatedSummary,
    LastSummary,
    MaxSummary,
    MeanSummary,
)

__all__ = [
    "AdditiveScorer",
    "AttendUpdate",
    "Attention",
    "AttentionContext",
    "ConcatSummary",
    "CopyBridge",
    "Decoder",
    "DenseBridge",
    "DotScorer",
    "FixedContext",
    "GatedSummary",
    "GeneralScorer",
    "LastSummary",
    "LinearReadout",
    "MaxSummary",
    "MaxoutReadout",
    "MeanSummary",
    "NoContext",
    "RNNEncoder",
    "Recurrence",
    "ScaledDotScorer",
    "Softmax",
    "SummaryBridge",
    "SummaryStart",
    "TanhReadout",
    "TokenStart",
    "UpdateAttend",
    "ZeroBridge",
]
