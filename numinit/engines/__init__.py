"""Memory and what is wanted of it: how index ranges are spread over threads and devices."""
