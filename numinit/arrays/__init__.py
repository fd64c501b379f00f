"""Whose memory it is: what the frameworks' arrays are to the engines, and new arrays."""
