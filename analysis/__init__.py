"""From recorded runs to tables, figures and one report. Reads files only; nothing here imports the network side."""
