"""One definition of a feature from the lake to the vehicle."""
