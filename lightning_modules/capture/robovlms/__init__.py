"""RoboVLMs on Kosmos-2: from a checkpoint alone, or through the user's own package."""
