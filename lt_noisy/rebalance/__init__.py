"""Class re-balancing: while training (`sampling`) and after it (`posthoc`)."""
