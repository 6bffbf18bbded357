"""What reads a message for a person: for now the embedded extractive ``summary``; models come beside it, never instead.

Law: what stands here is an opinion about the text. It never decides about safety, and works without a network.
"""
