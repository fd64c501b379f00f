"""The versions of the package and of the stream."""

__version__ = "0.1.0"

#: Changing any value that any key gives means a new stream version.
STREAM_VERSION = 1
