"""Measurements that print ratios against a reference taken in the same run."""
