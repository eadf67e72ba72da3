"""Fits of Lightning's: its command line, and the callbacks that track, judge and keep what it does."""
