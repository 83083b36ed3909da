package workerproc

import "time"

func toMonotonic(t time.Time) int64 { return t.UnixNano() }

func fromMonotonic(ns int64) time.Time { return time.Unix(0, ns) }
