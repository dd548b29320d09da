"""The paper's tables and figures: data sets, predictions, studies, and how they are told."""
