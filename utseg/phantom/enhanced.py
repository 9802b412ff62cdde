"""The attributes of an enhanced MR object beside its frames: what DICOM asks of an original cine, most of which no reader here looks at."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from pydicom.dataset import Dataset

CLASSIC = (
    *("AcquisitionDate", "AcquisitionTime", "ScanningSequence", "SequenceVariant", "ScanOptions"),
    *("RepetitionTime", "EchoTime", "EchoTrainLength"),
)
"""What only objects of one frame have."""
IMAGE_TYPE = ["ORIGINAL", "PRIMARY", "CARDIAC", "NONE"]
DESCRIPTION = {
    "PixelPresentation": "MONOCHROME",
    "VolumetricProperties": "VOLUME",
    "VolumeBasedCalculationTechnique": "NONE",
    "ComplexImageComponent": "MAGNITUDE",
    "AcquisitionContrast": "UNKNOWN",
}
OBJECT = DESCRIPTION | {
    "ImageType": IMAGE_TYPE,
    "AcquisitionNumber": 1,
    "AcquisitionDuration": 10_000.0,
    "ContentQualification": "RESEARCH",
    "ResonantNucleus": "1H",
    "KSpaceFiltering": "NONE",
    "ApplicableSafetyStandardAgency": "IEC",
    "ApplicableSafetyStandardDescription": "IEC 60601-2-33",
    "BurnedInAnnotation": "NO",
    "LossyImageCompression": "00",
    "PresentationLUTShape": "IDENTITY",
    "CardiacSynchronizationTechnique": "RETROSPECTIVE",
    "CardiacSignalSource": "ECG",
    "CardiacRRIntervalSpecified": 0.0,
    "CardiacBeatRejectionTechnique": "NONE",
    "LowRRValue": 0,
    "HighRRValue": 0,
    "IntervalsAcquired": 1,
    "IntervalsRejected": 0,
    "PulseSequenceName": "phantom",
    "MRAcquisitionType": "2D",
    "EchoPulseSequence": "GRADIENT",
    "MultiPlanarExcitation": "NO",
    "PhaseContrast": "NO",
    "TimeOfFlightContrast": "NO",
    "SteadyStatePulseSequence": "FREE_PRECESSION",
    "EchoPlanarPulseSequence": "NO",
    "SaturationRecovery": "NO",
    "SpectrallySelectedSuppression": "NONE",
    "OversamplingPhase": "NONE",
    "GeometryOfKSpaceTraversal": "RECTILINEAR",
    "SegmentedKSpaceTraversal": "PARTIAL",
    "RectilinearPhaseEncodeReordering": "LINEAR",
    "NumberOfKSpaceTrajectories": 1,
}
REGION = {"CodeValue": "80891009", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Heart"}
COIL_ELEMENT = {"MultiCoilElementName": "phantom", "MultiCoilElementUsed": "YES"}
RATE = {"SpecificAbsorptionRateDefinition": "IEC_WHOLE_BODY", "SpecificAbsorptionRateValue": 1.0}
MODE = {"OperatingModeType": "RF", "OperatingMode": "IEC_NORMAL"}
SHARED: dict[str, dict[str, Any]] = {
    "FrameAnatomySequence": {"FrameLaterality": "U", "AnatomicRegionSequence": REGION},
    "PixelValueTransformationSequence": {"RescaleIntercept": 0, "RescaleSlope": 1, "RescaleType": "US"},
    "MRImageFrameTypeSequence": DESCRIPTION | {"FrameType": IMAGE_TYPE},
    "MRTimingAndRelatedParametersSequence": {
        "RepetitionTime": "3.2",
        "FlipAngle": "50",
        "EchoTrainLength": 1,
        "RFEchoTrainLength": 0,
        "GradientEchoTrainLength": 1,
        "SpecificAbsorptionRateSequence": RATE,
        "GradientOutputType": "DB_DT",
        "GradientOutput": 1.0,
        "OperatingModeSequence": MODE,
    },
    "MREchoSequence": {"EffectiveEchoTime": 1.5},
    "MRModifierSequence": {
        "InversionRecovery": "NO",
        "FlowCompensation": "NONE",
        "Spoiling": "NONE",
        "T2Preparation": "NO",
        "SpectrallySelectedExcitation": "NONE",
        "SpatialPresaturation": "NONE",
        "PartialFourier": "NO",
        "ParallelAcquisition": "NO",
    },
    "MRImagingModifierSequence": {
        "MagnetizationTransfer": "NONE",
        "BloodSignalNulling": "NO",
        "Tagging": "NONE",
        "TransmitterFrequency": 63.9,
        "PixelBandwidth": "930",
    },
    "MRReceiveCoilSequence": {
        "ReceiveCoilName": "phantom",
        "ReceiveCoilManufacturerName": "",
        "ReceiveCoilType": "MULTICOIL",
        "QuadratureReceiveCoil": "NO",
        "MultiCoilDefinitionSequence": COIL_ELEMENT,
    },
    "MRTransmitCoilSequence": {
        "TransmitCoilName": "phantom",
        "TransmitCoilManufacturerName": "",
        "TransmitCoilType": "BODY",
    },
    "MRAveragesSequence": {"NumberOfAverages": "1"},
    "MRFOVGeometrySequence": {
        "InPlanePhaseEncodingDirection": "ROW",
        "MRAcquisitionFrequencyEncodingSteps": 64,
        "MRAcquisitionPhaseEncodingStepsInPlane": 64,
        "PercentSampling": "100",
        "PercentPhaseFieldOfView": "100",
    },
}
DIMENSIONS = {"InStackPositionNumber": 0x00209057, "TemporalPositionIndex": 0x00209128}
FRAME_CONTENT = 0x00209111


def item(values: dict[str, Any]) -> "Dataset":
    """A dataset of these values; a dict is a sequence of one item."""
    from pydicom.dataset import Dataset

    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, [item(value)] if isinstance(value, dict) else value)
    return dataset


def make_enhanced(
    dataset: "Dataset", shared: dict[str, dict[str, Any]], when: str, organization: str
) -> None:
    """Turns the header of a classic MR image into an enhanced object's, but for its frames. organization: UID of its dimensions."""
    for keyword in CLASSIC:
        delattr(dataset, keyword)
    for keyword, value in OBJECT.items():
        setattr(dataset, keyword, value)
    dataset.AcquisitionDateTime = when
    dataset.AcquisitionContextSequence = []
    dataset.SharedFunctionalGroupsSequence = [item(SHARED | shared)]
    dataset.DimensionOrganizationSequence = [item({"DimensionOrganizationUID": organization})]
    dataset.DimensionIndexSequence = [
        item({
            "DimensionOrganizationUID": organization,
            "DimensionIndexPointer": pointer,
            "FunctionalGroupPointer": FRAME_CONTENT,
            "DimensionDescriptionLabel": keyword,
        })
        for keyword, pointer in DIMENSIONS.items()
    ]  # fmt: skip


def frame_content(place: int, phase: int, when: str, duration_ms: float) -> dict[str, Any]:
    """Which frame it is, counted from 0 in the stack and in the cycle."""
    return {
        "FrameReferenceDateTime": when,
        "FrameAcquisitionDateTime": when,
        "FrameAcquisitionDuration": duration_ms,
        "CardiacCyclePosition": "UNDETERMINED",
        "StackID": "1",
        "InStackPositionNumber": place + 1,
        "TemporalPositionIndex": phase + 1,
        "DimensionIndexValues": [place + 1, phase + 1],
    }
