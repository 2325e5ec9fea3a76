"""What runs in the engines' own environments. ``orders`` is what all have in common."""
