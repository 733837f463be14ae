"""The instruments that take numbers: device time by a stopwatch, memory traffic by counters."""
