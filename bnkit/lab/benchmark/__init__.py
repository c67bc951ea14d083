"""The measurements of `bnkit bench`: its cases, rows, peers, summary and figure."""
