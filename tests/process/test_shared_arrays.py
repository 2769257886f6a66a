# needs: uccp
# timeout: 400
"""Arrays and tables in shared memory, read where they lie; and the example that passes them on. NumPy, pandas and Arrow
are installed below build/ the first time; where that cannot be done the test is skipped and says why."""
import gc
import os
import subprocess
import sys
import unittest

try:
    import uccp
    MISSING = None
except ImportError as error:
    MISSING = f"{error}: build/venv is made by tools/python"

from lib.uccp import ROOT, NodeTest, clean_environment
from lib.wait import wait_until

PACKAGES = ["numpy==2.2.6", "pandas==2.3.3", "pyarrow==22.0.0"]
FOLDER = ROOT / "build" / "python-arrays"
WAIT_S = 120


def installed():
    """None once the packages are in FOLDER; else why not."""
    marker = FOLDER / "installed"
    if marker.exists() and marker.read_text() == repr(PACKAGES):
        return None
    done = subprocess.run([sys.executable, "-m", "pip", "install", "-q", "--disable-pip-version-check", "--upgrade",
                           "--only-binary", ":all:", "--target", FOLDER, *PACKAGES],
                          capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        return f"pip cannot install them: {(done.stdout + done.stderr).strip()[-300:]}"
    marker.write_text(repr(PACKAGES))
    return None


class Arrays(NodeTest):
    @classmethod
    def setUpClass(cls):
        why = MISSING or installed()
        if why:
            raise unittest.SkipTest(why)
        sys.path.insert(0, str(FOLDER))
        cls.addClassCleanup(sys.path.remove, str(FOLDER))
        super().setUpClass()
        cls.client = uccp.init(context_file=cls.node.context_file)
        cls.addClassCleanup(uccp.shutdown)

    def assert_in_segment(self, address, size):
        memory = self.client.memory
        self.assertGreaterEqual(address, memory._read_at)
        self.assertLessEqual(address + size, memory._read_at + memory._segment_bytes)
        self.assertEqual(address % 64, 0)

    def test_numpy_arrays_are_views_that_cannot_be_written(self):
        import numpy
        array = numpy.arange(600_000, dtype=numpy.float64).reshape(1000, 600)
        ref = uccp.put({"rows": array, "turned": array.T, "names": ["a"]})
        first, second = uccp.get(ref), uccp.get(ref)
        self.assert_in_segment(first["rows"].ctypes.data, array.nbytes)
        self.assertEqual(first["rows"].ctypes.data, second["rows"].ctypes.data, "both look at the same memory")
        numpy.testing.assert_array_equal(first["rows"], array)
        numpy.testing.assert_array_equal(first["turned"], array.T)
        with self.assertRaises(ValueError):
            first["rows"][0, 0] = 1
        part = first["rows"][5:7]
        del first, second, ref
        gc.collect()
        others = [uccp.put(numpy.full(600_000, number)) for number in range(5)]
        numpy.testing.assert_array_equal(part, array[5:7], "a part of a value keeps the value where it is")
        del part, others
        wait_until(lambda: self.client.memory.stats()["objects"] == 0, WAIT_S, "all is gone")

    def test_tables_of_pandas_and_arrow_are_not_copied(self):
        import numpy
        import pandas
        import pyarrow
        frame = pandas.DataFrame({"x": numpy.arange(200_000) * 0.5, "y": numpy.arange(200_000) * 2.0})
        table = pyarrow.table({"n": pyarrow.array(range(200_000)), "text": ["a", None] * 100_000})
        refs = uccp.put(frame), uccp.put(table)
        read_frame, read_table = uccp.get(list(refs))
        pandas.testing.assert_frame_equal(read_frame, frame)
        self.assertEqual(read_table, table)
        self.assert_in_segment(read_frame["x"].to_numpy().ctypes.data, 200_000 * 8)
        self.assert_in_segment(read_table["n"].chunk(0).buffers()[1].address, 200_000 * 8)

    def test_functions_hand_arrays_on(self):
        import numpy

        @uccp.remote(cpu=0.2, memory="512Mi", durable=False, requirements=PACKAGES[:1])
        def more(array):
            return array + 1, array.flags.writeable, os.getpid()

        @uccp.remote(cpu=0.2, memory="512Mi", requirements=PACKAGES[:1])
        def total(pair):
            return float(pair[0].sum())

        @uccp.remote(cpu=0.2, memory="512Mi", requirements=PACKAGES[:1])
        def durable_more(array):
            return array + 2

        array = numpy.zeros(1_000_000)
        once = more.remote(uccp.put(array))
        value, writeable, pid = uccp.get(once, timeout=WAIT_S)
        self.assertFalse(writeable)
        self.assertNotEqual(pid, os.getpid())
        self.assert_in_segment(value.ctypes.data, value.nbytes)
        self.assertEqual(value.sum(), 1_000_000)
        self.assertEqual(uccp.get(total.remote(once), timeout=WAIT_S), 1_000_000.0)
        value = uccp.get(durable_more.remote(once._pending.value()[0][:100_000]), timeout=WAIT_S)
        self.assert_in_segment(value.ctypes.data, value.nbytes)
        self.assertEqual(value.sum(), 300_000)

    def test_the_example(self):
        done = subprocess.run([sys.executable, ROOT / "examples" / "python_arrays" / "pipeline.py", "--context-file",
                               self.node.context_file, "--samples", "400000"], capture_output=True, text=True,
                              timeout=WAIT_S, env=clean_environment(PYTHONPATH=str(FOLDER)))
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)
        self.assertIn("strongest at 50.0 Hz; 3 MB in shared memory", done.stdout)


if __name__ == "__main__":
    unittest.main()
