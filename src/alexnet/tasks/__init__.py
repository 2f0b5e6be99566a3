"""What a person asks for: fine-tune, predict, report, demo, doctor."""
