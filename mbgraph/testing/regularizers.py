class RegularizerCases: pass
