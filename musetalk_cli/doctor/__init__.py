"""First aid: what this machine has, what is missing, what is damaged, and what to type."""
