"""The table and the pictures that `utseg_demo` shows."""
