"""unit: pure code · integration: real servers · browser · house: reads the map."""
