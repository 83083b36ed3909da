package client

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	pb "github.com/procpool/procpool/proto/procpool/v1"
)

// completeProgram fills in what p does not say from this process: program, directory, environment, umask.
func completeProgram(p *pb.Program) error {
	var image string // file to identify; other than the path only for the running program, which may have been replaced since
	if p.Path == "" {
		self, err := os.Executable()
		if err != nil {
			return fmt.Errorf("%w: find this program for its workers: %w", ErrProgram, err)
		}
		p.Path, image = self, runningImage(self)
	} else {
		path, err := exec.LookPath(p.Path)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrProgram, err)
		}
		if p.Path, err = filepath.Abs(path); err != nil {
			return fmt.Errorf("%w: %w", ErrProgram, err)
		}
		image = p.Path
	}
	if err := identify(p, image); err != nil {
		return fmt.Errorf("%w: %w", ErrProgram, err)
	}
	var err error
	if p.Dir == "" {
		p.Dir, err = os.Getwd()
	} else {
		p.Dir, err = filepath.Abs(p.Dir)
	}
	if err != nil {
		return fmt.Errorf("find the workers' directory: %w", err)
	}
	if p.Env == nil && !p.ClearEnv {
		p.Env = os.Environ()
		p.ClearEnv = len(p.Env) == 0
	}
	if p.Umask == nil {
		p.Umask = currentUmask()
	}
	return nil
}

// identify notes which file the workers are to run, so that one that is rebuilt in between is noticed.
func identify(p *pb.Program, image string) error {
	info, err := os.Stat(image)
	if err != nil {
		return err
	}
	p.Device, p.Inode = fileID(info)
	if p.Inode != 0 {
		p.MtimeNs = info.ModTime().UnixNano()
	}
	return nil
}
