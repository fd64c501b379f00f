"""How index ranges are spread over threads and devices."""
