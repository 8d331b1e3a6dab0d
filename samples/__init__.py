"""Three products the project draws itself, and the welcome that tags them through the public API."""
