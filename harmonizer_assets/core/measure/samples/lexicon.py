"""Words that sample receipts are made of; every name is invented."""

from __future__ import annotations

from typing import Final

NAME_FIRST: Final = [
    "Amber",
    "Birch",
    "Cedar",
    "Copper",
    "Crown",
    "Delta",
    "Echo",
    "Fern",
    "Golden",
    "Harbor",
    "Ivory",
    "Juniper",
    "Kestrel",
    "Lantern",
    "Maple",
    "North",
    "Olive",
    "Pearl",
    "Quartz",
    "River",
    "Silver",
    "Timber",
    "Umber",
    "Violet",
    "Willow",
    "Yellow",
    "Zephyr",
    "Blue",
    "Stone",
    "Summit",
    "Velvet",
    "Wild",
]
NAME_SECOND: Final = {
    "supermarket": ["Market", "Grocers", "Foods", "Mart", "Superstore"],
    "restaurant": ["Kitchen", "Bistro", "Diner", "Cafe", "Noodle", "House"],
    "pharmacy": ["Pharmacy", "Chemist", "Apothecary", "Health", "Care"],
    "petrol": ["Fuel", "Petroleum", "Station", "Energy", "Motors"],
    "hardware": ["Hardware", "Tools", "Builders", "Supply", "Trading"],
}
NAME_LAST: Final = ("", "", "Ltd", "Sdn Bhd", "Inc", "& Sons", "Co")
ODD_NAMES: Final = (
    "Wren's Pantry",
    "O'Dell | Daughters",
    "5/9 Corner",
    "山川商店",
    "Pizza 🍕 Planet",
    'The "Good" Shop',
)
STREETS: Final = [
    "Orchard",
    "Market",
    "Mill",
    "Station",
    "Church",
    "Park",
    "Garden",
    "Bridge",
    "Hill",
    "Lake",
    "Temple",
    "Palm",
    "Cedar",
    "King",
    "Queen",
]
STREET_KINDS: Final = ["Street", "Road", "Avenue", "Lane", "Jalan", "Drive"]
CITIES: Final = [
    "Ashford",
    "Brookvale",
    "Clearwater",
    "Dunmore",
    "Eastwick",
    "Fairhaven",
    "Glenwood",
    "Hillcrest",
]
ITEMS: Final = {
    "supermarket": [
        "Whole Milk 1L",
        "White Bread",
        "Brown Rice 5kg",
        "Free Range Eggs",
        "Bananas",
        "Tomato Paste",
        "Olive Oil",
        "Cheddar Cheese",
        "Chicken Breast",
        "Orange Juice",
        "Instant Noodle",
        "Dish Soap",
        "Toilet Paper 10R",
        "Green Tea",
        "Potato Chips",
        "Butter Unsalted",
        "Sugar 1kg",
        "Apple Fuji",
    ],
    "restaurant": [
        "Chicken Rice",
        "Beef Noodle Soup",
        "Iced Lemon Tea",
        "Fish Fillet Set",
        "Fried Egg",
        "Garden Salad",
        "Latte Large",
        "Espresso",
        "Chocolate Cake",
        "Mineral Water",
        "Lamb Chop",
        "Prawn Curry",
        "Garlic Bread",
    ],
    "pharmacy": [
        "Paracetamol 500mg",
        "Vitamin C 1000",
        "Cough Syrup",
        "Bandage Roll",
        "Hand Sanitizer",
        "Face Mask 50s",
        "Eye Drops",
        "Sunscreen SPF50",
        "Antacid Tablets",
        "Toothpaste Mint",
    ],
    "petrol": [
        "Unleaded 95",
        "Diesel Euro5",
        "Engine Oil 4L",
        "Car Wash Basic",
        "Air Freshener",
        "Coolant 1L",
        "Wiper Blade",
        "Snack Bar",
    ],
    "hardware": [
        "Wood Screw 4x30",
        "Paint Brush 2in",
        "Masking Tape",
        "PVC Pipe 20mm",
        "LED Bulb 9W",
        "Hammer Steel",
        "Cement 25kg",
        "Sandpaper P120",
        "Door Hinge",
        "Cable Tie 100s",
        "Wall Plug",
        "Silicone Sealant",
    ],
}
TOTAL_CAPTIONS: Final = ("TOTAL", "GRAND TOTAL", "AMOUNT DUE", "TOTAL SALES", "NET TOTAL")
SUBTOTAL_CAPTIONS: Final = ("SUBTOTAL", "SUB TOTAL", "SUB-TOTAL", "AMOUNT")
TAX_CAPTIONS: Final = ("GST 6%", "VAT", "TAX", "SALES TAX", "SST 6%")
PHONE_CAPTIONS: Final = ("TEL:", "Phone:", "Tel", "T:")
LOYALTY_CAPTIONS: Final = ("MEMBER NO", "LOYALTY", "CARD ID:", "POINTS ID")
FOOTERS: Final = (
    "Thank you please come again",
    "Goods sold are not returnable",
    "Keep this receipt for exchange",
    "Have a nice day",
)
DATE_FORMATS: Final = ("%d/%m/%Y", "%Y-%m-%d", "%d-%m-%y", "%d %b %Y", "%m/%d/%Y")
TIME_FORMATS: Final = ("%H:%M", "%H:%M:%S", "%I:%M%p")
PAYMENTS: Final = ("CASH", "VISA", "MASTERCARD", "DEBIT", "E-WALLET")
CONFUSIONS: Final = {
    "0": "O", "O": "0", "1": "l", "l": "1", "I": "1", "5": "S", "S": "5", "8": "B", "B": "8",
    "2": "Z", "6": "G", "e": "c", "a": "o", "t": "f",
}  # fmt: skip
CONFUSABLE: Final = {
    "GRAND_TOTAL": ("SUBTOTAL", "LINE_TOTAL", "TAX"),
    "SUBTOTAL": ("GRAND_TOTAL", "LINE_TOTAL", "TAX"),
    "LINE_TOTAL": ("UNIT_PRICE", "GRAND_TOTAL", "SUBTOTAL"),
    "UNIT_PRICE": ("LINE_TOTAL", "QUANTITY", "DISCOUNT"),
    "TAX": ("SUBTOTAL", "DISCOUNT", "GRAND_TOTAL"),
    "DISCOUNT": ("TAX", "COUPON", "LINE_TOTAL"),
    "QUANTITY": ("UNIT_PRICE", "PRODUCT_NAME"),
    "DATE": ("TIME", "STORE_HOURS"),
    "TIME": ("DATE", "STORE_HOURS"),
    "STORE_HOURS": ("TIME", "DATE"),
    "PRODUCT_NAME": ("MERCHANT_NAME", "COUPON", "QUANTITY"),
    "MERCHANT_NAME": ("ADDRESS_LINE", "PRODUCT_NAME"),
    "ADDRESS_LINE": ("MERCHANT_NAME", "PRODUCT_NAME"),
    "PHONE_NUMBER": ("LOYALTY_ID", "ADDRESS_LINE"),
    "LOYALTY_ID": ("PHONE_NUMBER", "COUPON"),
    "WEBSITE": ("MERCHANT_NAME", "ADDRESS_LINE"),
    "PAYMENT_METHOD": ("PRODUCT_NAME", "COUPON"),
    "COUPON": ("DISCOUNT", "LOYALTY_ID"),
}
