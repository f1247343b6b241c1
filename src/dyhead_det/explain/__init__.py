"""What DyHead looked at in one image: its inner numbers as a picture and as arrays."""
