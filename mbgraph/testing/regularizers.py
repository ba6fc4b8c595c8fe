class RegularizerCases:
    pass
