"""Which machine this is, whether it is fit to measure, and the right to use its device."""
