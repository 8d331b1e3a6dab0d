"""The HTTP side of Tagsmith: the intake API and the page.

Imports `catalog` only: no torch, no model, no task body is ever loaded in this process.
"""
