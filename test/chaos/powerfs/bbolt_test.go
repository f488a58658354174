package powerfs

func commitForEver(string) int { return 0 }
