from dgba.datasets._scenes import CHANNELS, CLASSES, Scenes, scenes
