"""Views: all of a victim that an attacker ever sees, one frozen class per access level, every query counted.

Stronger views narrow to weaker ones (``white_box -> scores -> labels``) and never widen.
"""

from __future__ import annotations

from mibench.access.base import NoView, View
from mibench.access.double_backward import has_large_convolutions, lean_convolutions
from mibench.access.features import ENCODERS, FeaturesView
from mibench.access.gradients import GradientsView, LocalTraining, Transcript
from mibench.access.ledger import PHASES, Ledger, uncounted
from mibench.access.messages import Message, Round, Sealed, Server, mean_update, server_step
from mibench.access.pairs import EncryptedImagesView, TwoModelsView
from mibench.access.services import ExplanationsView, GenerateView, LabelsView, ScoresView, ServiceView
from mibench.access.white_box import WhiteBoxView

__all__ = [
    "ENCODERS",
    "PHASES",
    "EncryptedImagesView",
    "ExplanationsView",
    "FeaturesView",
    "GenerateView",
    "GradientsView",
    "LabelsView",
    "Ledger",
    "LocalTraining",
    "Message",
    "NoView",
    "Round",
    "ScoresView",
    "Sealed",
    "Server",
    "ServiceView",
    "Transcript",
    "TwoModelsView",
    "View",
    "WhiteBoxView",
    "has_large_convolutions",
    "lean_convolutions",
    "mean_update",
    "server_step",
    "uncounted",
]
