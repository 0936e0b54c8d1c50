"""Images with the truth of several tasks: rendered, and read from files."""

from dgba.datasets._scenes import CHANNELS, CLASSES, Scenes, scene_tasks, scenes

__all__ = ["CHANNELS", "CLASSES", "Scenes", "scene_tasks", "scenes"]
