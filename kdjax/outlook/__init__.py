"""What a preset will cost on chips that are not at hand: time, memory, input, money.

Arithmetic on shapes and data sheets; no device is touched.
"""
