"""The search itself: pure, no files, no Ray, no clock."""
