package server_test

func beClient(what, addr string) int { return 0 }
