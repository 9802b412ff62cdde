"""DICOM in and out: scanner folders become cines; masks and measures become DICOM objects in the study of their source.

A cine keeps a record of the DICOM frames that it was made from (`sources`), which is all that writing back needs.
"""
