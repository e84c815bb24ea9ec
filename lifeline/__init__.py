"""What Lifeline knows: the registry, readings, rules and alarms. Starts nothing, listens to nothing."""
