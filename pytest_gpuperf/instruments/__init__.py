"""How a number is taken: device time by a stopwatch, memory traffic by counters."""
