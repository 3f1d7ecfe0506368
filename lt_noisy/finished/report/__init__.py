"""The report of finished runs: one HTML page without a network, its pictures, and its tables for papers."""
