"""The report about a study: tables, sentences and charts of what `utseg.study.findings` computes."""
