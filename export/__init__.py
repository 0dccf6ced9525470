"""The exporter: trained model -> SavedModel, .tflite, report card; run `python export/main.py --help`."""
