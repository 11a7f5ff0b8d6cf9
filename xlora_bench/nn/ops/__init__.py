"""Operations of adapted layers and of attention: low-rank linear, attention, dropout."""
