"""Multi-task models: an encoder in five blocks, of which tasks share as many as wanted, and a head a task."""

from dgba.models._multi_task import ENCODERS, Encoder, MultiTaskModel, multi_task

__all__ = ["ENCODERS", "Encoder", "MultiTaskModel", "multi_task"]
