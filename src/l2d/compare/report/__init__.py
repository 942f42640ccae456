"""The report of a comparison: one HTML file with plots, from the JSON record alone."""

from l2d.compare.report.page import frontier_svg, render

__all__ = ["frontier_svg", "render"]
