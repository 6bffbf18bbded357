"""What detectors look with: fields, names, links and files of a message, read and compared.

Pure, but for the child that reads the insides of files.
"""
