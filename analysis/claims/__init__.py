"""What is said of CNNs, measured: every file in this folder is one claim, `frame/` runs, records and shows them, and
`parts/` holds what experiments are made of.

A claim's file says what is asked and concludes from recorded rows without torch; it imports torch and the networks
inside `measure` alone, so that a report shows the chapter where torch is missing. This is the one folder of analysis
that may import `models`, `kernels` and `data`, since an experiment needs a network.
"""
