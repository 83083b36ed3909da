package mapping

import "os"

// shared is a file that workers open by its path. See [newShared].
type shared struct {
	file  *os.File
	path  string
	close func()
}
