"""Tests of utseg.rawdata."""
