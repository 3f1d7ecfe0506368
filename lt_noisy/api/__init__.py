"""The program as Python calls: `import lt_noisy as lt; run = lt.fit("photos")`."""
